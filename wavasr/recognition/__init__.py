"""From recordings to transcripts: transcribe, align, adapt, output formats."""
