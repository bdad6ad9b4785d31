"""Wire cases: bytes at one end of a real proxy, bytes at the other, and what must hold between them."""
