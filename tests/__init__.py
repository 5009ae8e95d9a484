"""Tests with real parts: real servers, real recorders, real files."""
