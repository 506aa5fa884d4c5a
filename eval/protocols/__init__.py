"""One set of images under several named protocols: how much of a difference between two FIDs is the protocol?"""
