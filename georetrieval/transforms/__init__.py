"""What training does to images, on whole batches."""
