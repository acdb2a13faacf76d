// Connects with pgjdbc as told on standard input, a line of base64 fields for each, and prints what each error says in base64.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.Base64;
import java.util.Properties;

public class Mistakes {
  public static void main(String[] arguments) throws Exception {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String[] fields = line.split(" ", -1);
      Properties properties = new Properties();
      properties.setProperty("user", text(fields[0]));
      properties.setProperty("password", text(fields[1]));
      properties.setProperty("sslmode", text(fields[3]));
      if (text(fields[3]).equals("verify-full")) properties.setProperty("sslrootcert", arguments[1]);
      String said = "connected";
      try {
        DriverManager.getConnection("jdbc:postgresql://" + arguments[0] + "/" + text(fields[2]), properties).close();
      } catch (SQLException error) {
        said = error.getMessage();
      }
      System.out.println(Base64.getEncoder().encodeToString(said.getBytes(StandardCharsets.UTF_8)));
    }
  }

  private static String text(String field) {
    return new String(Base64.getDecoder().decode(field), StandardCharsets.UTF_8);
  }
}
