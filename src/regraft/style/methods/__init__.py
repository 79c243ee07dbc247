"""Style methods; one class a method."""
