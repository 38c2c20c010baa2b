"""Comparison of videos and pictures on one page."""
