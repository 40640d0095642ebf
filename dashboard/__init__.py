"""The web page: an overview of the mesh for a browser."""
