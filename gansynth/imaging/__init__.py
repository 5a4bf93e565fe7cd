"""Image surgery: lesions measured, blended, drawn; places in a body."""
