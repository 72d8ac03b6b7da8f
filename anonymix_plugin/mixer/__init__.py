"""The mixer: person and key in, latent code of a cancelable face out."""
