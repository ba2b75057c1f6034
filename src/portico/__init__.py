"""Portico: every socket behind one front door."""
