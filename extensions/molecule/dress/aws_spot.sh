# shellcheck shell=sh
# EC2: the user of Ubuntu's images, on the root disk that goes with the instance; rented from a moto server by the modules
# of amazon.aws.
account ubuntu
