"""The one training loop, and what every fine-tuning command shares."""
