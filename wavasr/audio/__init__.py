"""Recordings: reading and augmentation."""
