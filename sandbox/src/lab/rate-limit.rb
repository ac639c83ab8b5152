# A certificate authority whose limit is reached: it has a directory, nonces and accounts as RFC 8555
# says, and refuses every order as Let's Encrypt does.
require "json"
require "openssl"
require "socket"

BASE = "https://acme-v02.api.letsencrypt.org"
DIRECTORY = {newNonce: "#{BASE}/nonce", newAccount: "#{BASE}/account", newOrder: "#{BASE}/order",
             revokeCert: "#{BASE}/revoke", keyChange: "#{BASE}/key"}
LIMIT = {type: "urn:ietf:params:acme:error:rateLimited", status: 429,
         detail: "too many certificates (5) already issued for this exact set of identifiers in the last " \
                 "168h0m0s, retry after 2026-11-28 09:30:00 UTC: see " \
                 "https://letsencrypt.org/docs/rate-limits/#new-certificates-per-exact-set-of-identifiers"}

def answer(method, path)
  case path
  when "/dir" then ["200 OK", "application/json", DIRECTORY]
  when "/nonce" then ["200 OK", "text/plain", nil]
  when "/account" then ["201 Created\r\nLocation: #{BASE}/account/1", "application/json", {status: "valid"}]
  else ["429 Too Many Requests\r\nRetry-After: 86400", "application/problem+json", LIMIT]
  end
end

context = OpenSSL::SSL::SSLContext.new
certificate = OpenSSL::X509::Certificate.new(File.read("/lab/hosts.crt"))
context.add_certificate(certificate, OpenSSL::PKey.read(File.read("/lab/hosts.key")))
door = TCPServer.new("0.0.0.0", 443)
loop do
  Thread.new(door.accept) do |socket|
    stream = OpenSSL::SSL::SSLSocket.new(socket, context)
    stream.sync_close = true
    stream.accept
    method, path = stream.gets.split
    length = 0
    while (line = stream.gets) && line != "\r\n"
      length = line.split(":")[1].to_i if line.downcase.start_with?("content-length:")
    end
    stream.read(length)
    status, type, what = answer(method, path)
    body = what ? JSON.generate(what) : ""
    stream.write("HTTP/1.1 #{status}\r\nContent-Type: #{type}\r\nContent-Length: #{body.bytesize}\r\n" \
                 "Replay-Nonce: nonce#{rand(1 << 60)}\r\nConnection: close\r\n\r\n#{method == "HEAD" ? "" : body}")
    stream.close
  rescue StandardError => error
    warn error.message
  end
end
