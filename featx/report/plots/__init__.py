"""The pictures of a comparison, drawn by matplotlib.

A new one is a function that takes a comparison, and a line where the report folder or the page lists its pictures.
"""
