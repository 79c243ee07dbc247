"""One term over the features of both domains; one class a method."""
