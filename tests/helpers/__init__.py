"""What several test modules share: small runs, processes, folders of images and of finished runs, plain references."""
