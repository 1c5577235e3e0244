"""Finished models to the Hugging Face Hub: what goes where, under which terms, with which card."""
