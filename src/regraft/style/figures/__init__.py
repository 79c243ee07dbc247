"""What a stylised picture is worth: figures, and the dial between style and photo."""
