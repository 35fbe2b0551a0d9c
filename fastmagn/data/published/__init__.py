"""Published image sets in the folders that torchvision expects, read without running code from any file."""
