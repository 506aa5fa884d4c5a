"""The built-in stand-in for a model hub and a data set."""
