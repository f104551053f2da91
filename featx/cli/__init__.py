"""The command line: each command is one file with its text and its JSON.

A command parses, calls one function of the library, prints.
"""
