"""Reads the contract and computes everything that follows from it. Never imports `handlers`."""
