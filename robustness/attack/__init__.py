"""The attacks, torchattacks' and pyautoattack's, and the view of a model that they see."""
