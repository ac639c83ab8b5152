# A runner of GitHub's, as far as our workflow needs one: bash, git, ssh, and Kamal from Debian.
FROM vmkit-lab/forky
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    ruby-kamal git openssh-client curl procps jq skopeo ca-certificates && apt-get clean
COPY ca.crt /usr/local/share/ca-certificates/vmkit-lab.crt
COPY gem /usr/local/bin/gem
RUN update-ca-certificates && chmod +x /usr/local/bin/gem && useradd -m -d /home/runner runner
