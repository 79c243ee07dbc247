"""Several labels of one sample: any number of them may apply."""
