"""What is remembered: settings, specs, the ledger, the score store, MLflow. The only room that talks to them."""
