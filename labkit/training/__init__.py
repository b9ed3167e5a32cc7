"""How the networks learn: loss, augmentation, schedule and the loop."""
