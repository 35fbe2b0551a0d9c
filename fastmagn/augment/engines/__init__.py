"""The engines that make views."""
