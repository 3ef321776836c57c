"""Where models come from: folders of Hugging Face, timm, torchvision, and functions of one's own."""
