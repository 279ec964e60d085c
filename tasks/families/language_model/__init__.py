"""Language models: Hugging Face encoders over query and product text, fine-tuned or trained from scratch."""
