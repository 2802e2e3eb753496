"""What an attacker may do to an image, know of the noise, and ask of a defence."""
