"""The content of images: copied in and out, read at one instant, compared."""
