"""Error rates, reports and tuning."""
