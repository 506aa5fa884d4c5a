"""The method: Adversarial Diffusion Distillation, and nothing about evaluation."""
