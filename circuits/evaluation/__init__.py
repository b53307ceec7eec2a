"""Circuits judged on prompts that nothing was found on: faithfulness, completeness, minimality, tests."""
