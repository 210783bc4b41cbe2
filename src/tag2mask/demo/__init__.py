"""Generated scenes with exact masks: what `tag2mask demo` runs on."""
