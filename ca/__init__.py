"""Issues each ServiceAccount's SVID as a Secret and keeps it fresh."""
