"""Adapters: small trained additions to a frozen model."""
