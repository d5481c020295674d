"""How the documents of the pretraining mixture are made, form by form."""
