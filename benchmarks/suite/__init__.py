"""The asv suite and the table of cases that it shares with the tests."""
