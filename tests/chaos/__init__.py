"""Kill, pause and flush everything under load, then prove that nothing was lost or doubled."""
