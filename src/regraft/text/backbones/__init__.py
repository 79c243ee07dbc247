"""Pretrained text networks behind the backbone contract."""
