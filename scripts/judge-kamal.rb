# Kamal's own parser on many folders of generated files, in one process: `ruby judge-kamal.rb FOLDER...`.
# A line for each Kamal file: its folder, its name, `ok` or what is wrong. Where the folder has an
# EXPECT.json, what Kamal read has to be what was meant, character by character.
require "json"
require "kamal"
require "pathname"

def read(config)
  {
    "service" => config.service,
    "roles" => config.roles.to_h { |role| [role.name.to_s, role.cmd] },
    "proxied" => config.roles.select(&:running_proxy?).map { |role| role.name.to_s },
    "primary" => config.primary_role_name,
    "volumes" => Array(config.raw_config.volumes),
    "health" => config.proxy&.proxy_config&.dig("healthcheck", "path")
  }
end

ARGV.each do |folder|
  Dir.chdir(folder) do
    expected = File.exist?("EXPECT.json") ? JSON.parse(File.read("EXPECT.json")) : {}
    Dir.glob("config/deploy.*.yml").sort.each do |file|
      path = Pathname.new(File.expand_path(file))
      config = Kamal::Configuration.create_from(config_file: path, version: "0" * 40)
      config.to_h
      wanted, found = expected[file], read(config)
      wrong = wanted&.keys&.find { |key| wanted[key] != found[key] }
      verdict = wrong ? "#{wrong} is #{found[wrong].inspect}, meant was #{wanted[wrong].inspect}" : "ok"
      puts "#{File.basename(folder)} #{file} #{verdict}"
    rescue => error
      puts "#{File.basename(folder)} #{file} #{error.class}: #{error.message.lines.first}"
    end
  end
end
