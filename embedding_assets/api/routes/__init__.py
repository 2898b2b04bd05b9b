"""The routes, one module for each subject. A route reads its request, asks the services, and shapes the answer."""
