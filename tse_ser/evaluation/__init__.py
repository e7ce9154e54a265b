"""Metrics, checkpoint evaluation, studies, tables and figures."""
