"""What will a table cost? Arithmetic, memory, disk and time, modelled from the real networks' shapes or measured."""
