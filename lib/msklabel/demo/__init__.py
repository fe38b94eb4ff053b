"""A scripted annotator that goes round the whole loop on phantoms, through 3D Slicer's own client module."""
