"""Tables and pages made from the folders of runs."""
