"""Networks: timm backbones with named layers, the classifier, and the segmenters."""
