"""Recordings: reading, augmentation, features, pitch; notes."""
